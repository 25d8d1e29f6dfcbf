"""Sign-in through outside identity providers: OpenID Connect and CAS 3.0.

https://openid.net/specs/openid-connect-core-1_0.html, https://apereo.github.io/cas/7.1.x/protocol/CAS-Protocol.html
"""
