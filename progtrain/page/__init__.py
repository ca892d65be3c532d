"""Pages that people look at: of one run, and of many compared. HTML that needs no network."""
