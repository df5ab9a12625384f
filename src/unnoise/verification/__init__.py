"""Golden numbers and known answers, held against the installed versions and the hardware."""
