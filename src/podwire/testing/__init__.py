"""What people use to test policies in pytest: `plugin` gives the `sandbox` fixture."""
