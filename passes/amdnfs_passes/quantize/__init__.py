"""Phase quantize: contractions whose weights are stored in 8 or 4 bits."""
