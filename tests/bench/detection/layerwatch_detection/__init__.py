"""How well broken layers are told from healthy changes: trained networks, thousands of versions, known function."""
