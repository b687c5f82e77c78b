"""Names, orientations and units of layers as Hugging Face stores them, whatever a converter made of them."""
