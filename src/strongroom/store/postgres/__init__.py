"""The store on PostgreSQL: any number of nodes over one database, whose batches take turns at the journal's lock.

What a node's own commits changed is told to its subscribers; what other nodes changed is read when it is asked for, and
told to nobody. So it cannot yet stand behind what caches committed state, and no setting offers it.
"""
