"""The words: labels, identities, endpoints, rules, services, flows. Frozen values, no I/O."""
