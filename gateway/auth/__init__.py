"""Who is calling, and may they: secrets, credentials, principals, admission. Knows no sockets and no HTTP library."""
