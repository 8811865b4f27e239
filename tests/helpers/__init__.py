"""What tests in several folders use: small models and plain definitions."""
