"""The audit: each module works one kind of what is kept out anew from the journal; `verification` joins them."""
