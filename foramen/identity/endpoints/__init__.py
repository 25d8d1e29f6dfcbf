"""One module per endpoint of the authorization server; `foramen/identity/routes.py` lists them."""
