"""What is kept, and where: Postgres (the truth), Redis (shared cache and push), process memory."""
