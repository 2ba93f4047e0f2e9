"""Where a price comes from, how old it is, how two of them are crossed, and the spread the customer pays.

Read in this order: `prices` (one price), `table` and `ecb` (where prices come from), `paths` (crossing them),
`quotes` (what is published of it), `book` (what the wallet asks).
"""
