"""What the HTML pages are made of: templates, pictures, colour stamps, maps of the sky."""
