"""Commands that measure methods of conditioning, and write what docs/results/ shows."""
