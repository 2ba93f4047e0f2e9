"""In which order the servers of a database are tried, by where one was found to serve."""

from __future__ import annotations

from psycopg.conninfo import conninfo_to_dict

from strongroom.store.postgres.route import Route

THREE = "postgresql://strongroom:word@/books?host=db1,db2,db3&port=5432,5433,5434&target_session_attrs=read-write"


def order(conninfo: str) -> tuple[object, object]:
    """Return hosts and ports as they are tried."""
    parts = conninfo_to_dict(conninfo)
    return parts.get("host"), parts.get("port")


def test_the_servers_are_tried_as_they_were_given_until_one_is_known_to_serve() -> None:
    """Before anything is known nothing is changed."""
    route = Route(THREE)
    assert (route.straight, route.around) == (THREE, THREE)


def test_the_one_that_serves_is_tried_first_and_by_who_has_lost_it_last() -> None:
    """All else of the address stays as it is, and what was learned last counts."""
    route = Route(THREE)
    route.note("db1", 5432)
    route.note("db2", 5433)
    assert order(route.straight) == ("db2,db1,db3", "5433,5432,5434")
    assert order(route.around) == ("db1,db3,db2", "5432,5434,5433")
    changed = ("host", "port")
    given, found = ({k: v for k, v in conninfo_to_dict(it).items() if k not in changed} for it in (THREE, route.around))
    assert given == found


def test_a_port_for_all_servers_or_for_none_is_theirs_in_any_order() -> None:
    """Hosts are told apart by their names where they have one port, and by their ports where they have one name."""
    for given in ("host=db1,db2 port=6000", "host=db1,db2"):
        route = Route(given)
        route.note("db2", 6000)
        assert order(route.straight)[0] == "db2,db1"
    assert order(route.straight)[1] is None
    route = Route("host=db1,db1 port=1,2")
    route.note("db1", 2)
    assert order(route.straight) == ("db1,db1", "2,1")


def test_a_single_server_or_one_that_is_not_named_changes_nothing() -> None:
    """Where there is no choice, or the one that serves is known by another name, the address is as it was given."""
    for given in ("host=db1 port=5432", "service=books", ""):
        route = Route(given)
        route.note("db9", 5432)
        assert (route.straight, route.around) == (given, given)
    route = Route("postgresql://db1/books")
    route.note("db1", 5432)
    assert route.straight == "postgresql://db1/books"
