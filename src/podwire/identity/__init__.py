"""Who is who: numbers for label sets, identities that selectors mean, identities behind addresses."""
