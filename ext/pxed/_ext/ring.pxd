"""Rings: doubly linked, intrusive, O(1). A zeroed Link is in no ring; the head of an empty ring points to itself."""

cdef struct Link:
    Link *next               # NULL: in no ring
    Link *previous
    void *owner              # the record that it is part of


cdef inline void ring_init(Link *head) noexcept nogil:
    head.next = head.previous = head


cdef inline void ring_append(Link *head, Link *link, void *owner) noexcept nogil:
    """At the end. Not for a link that is in a ring already."""
    link.owner = owner
    link.next = head
    link.previous = head.previous
    head.previous.next = link
    head.previous = link


cdef inline void ring_remove(Link *link) noexcept nogil:
    """Out of its ring, if it is in one."""
    if link.next is not NULL:
        link.previous.next = link.next
        link.next.previous = link.previous
        link.next = link.previous = NULL


cdef inline void *ring_first(Link *head) noexcept nogil:
    """The owner of the link that was appended first; NULL when the ring is empty."""
    return head.next.owner if head.next != head else NULL
