"""What each kind does beyond the common rules: defaults, allocation, validation."""
