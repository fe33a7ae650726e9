"""What the conditioned layers have in common."""
