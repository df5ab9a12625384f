"""The processes of a run: which rank this is, how ranks meet, start and stop, on what device."""
