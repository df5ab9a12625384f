"""Pictures of what is taught, each one class: schedules, samplers, guidance, captions, noise."""
