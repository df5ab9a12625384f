"""One page that tells what runs did."""
