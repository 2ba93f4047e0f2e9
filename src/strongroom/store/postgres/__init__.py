"""The store on PostgreSQL: any number of nodes over one database, whose batches take turns at the journal's lock.

What one node commits, the others hear under the lock of their own next batch, and several times a second beside that.
"""
