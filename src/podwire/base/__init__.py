"""Ground: errors, addresses, configuration, logging, supervised tasks. Imports nothing of podwire."""
