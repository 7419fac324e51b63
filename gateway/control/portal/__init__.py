"""The portal: pages for people, at `/portal`. They do what the management API does, by the same services.

    application  put together: addresses, headers, the application that is mounted
    gate         who is looking, CSRF, and errors as pages
    sessions     who has signed in, as Postgres knows it; cookies are in `cookies`
    sign_in      by OpenID Connect: `attempt` is what a browser holds of it, `provider` asks the provider
    rendering    templates, and what all of them know; `charts` draws
    forms        what a browser has sent
    ...          the pages themselves; those of `administration` are for who has a role

It must not know: tables, and how a key comes into being.
"""
