"""The paper's table in small, on real ratings: what joint teaching of scoring and interpreting is worth."""
