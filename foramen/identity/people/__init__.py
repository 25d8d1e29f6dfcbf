"""People: accounts, passwords, second factors, sessions, and who has to wait.

https://pages.nist.gov/800-63-4/sp800-63b.html
"""
