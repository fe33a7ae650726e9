"""The parts that the conditioned layers share."""
