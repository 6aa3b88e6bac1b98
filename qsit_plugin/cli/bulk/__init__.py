"""Commands for very many images: scores in a store, and what is made of them."""
