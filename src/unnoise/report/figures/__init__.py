"""Pictures of what is taught."""
