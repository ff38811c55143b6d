"""The laboratory: how the embedded weights and the tables in results/ came about."""
