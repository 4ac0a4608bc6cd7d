"""Operations that are written in vectors, for processors."""
