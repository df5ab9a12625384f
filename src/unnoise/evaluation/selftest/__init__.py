"""Known answers that unnoise-verify and the tests hold."""
