"""The pytest plugin; loaded by pytest through its entry point."""
