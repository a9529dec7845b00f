"""Orders for a CastSender, and its events, as Python has them."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pxed._ext.cast cimport CastSession
from pxed._ext.linux_net cimport pxed_path
from pxed._ext.sender cimport Event

cdef enum Verb:
    VERB_OPEN
    VERB_CLOSE
    VERB_ADMIT
    VERB_DIRECT
    VERB_RATE
    VERB_HOLD
    VERB_ASK


# The text of a COMMAND_OWN; `thing` is the pxed_cast_source of VERB_OPEN.
cdef struct CastCommand:
    Verb verb
    CastSession session              # whole for VERB_OPEN, else its id
    pxed_path group
    uint64_t rate                    # symbol bytes per second; 0: no limit
    uint16_t period                  # ms
    bint held
    uint32_t receiver
    uint32_t address                 # as in a packet
    uint8_t order
    uint8_t reason
    uint32_t first                   # VERB_ASK


cdef object record_of(Event *event)
