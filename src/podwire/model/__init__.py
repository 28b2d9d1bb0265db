"""The words: labels, identities, endpoints, rules, services, flows. Frozen values. Pure: no I/O."""
