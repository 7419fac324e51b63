"""The portal's pages for administrators: what the management API does for the same roles, by the same services.

    desk         put together, and which roles see which page
    services     what the pages stand on
    sign_in      by an admin token
    listing      pages of listings, and filters
    ...          the pages themselves

It must not know: tables, and who may see whose things; the services do.
"""
