"""The records of a CastSender: sessions, receivers, chunks, and what receivers want of them. Rules:
cast_session.pyx.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from pxed._ext.cast cimport CAST_BLOCK, CAST_MOST_SYMBOLS, CAST_PARITIES, CAST_SYMBOL_WORDS, CastSession
from pxed._ext.cast_source cimport pxed_cast_source
from pxed._ext.lines cimport Share
from pxed._ext.linux_net cimport pxed_path
from pxed._ext.pacer cimport pxed_pacer
from pxed._ext.ring cimport Link

cdef enum:
    RECEIVER_BUCKETS = 256
    MOST_RECEIVERS = 4096                # of one session
    MOST_CLAIMS = 1 << 18                # of one session: some 50 MB; more are heard again in the next report
    MOST_BLOCKS = CAST_MOST_SYMBOLS // CAST_BLOCK + 1
    JOB_WORDS = CAST_SYMBOL_WORDS + MOST_BLOCKS * CAST_PARITIES // 64

# What a receiver is to do. Only ROLE_ACTIVE ones have wants.
cdef enum Role:
    ROLE_ACTIVE
    ROLE_LISTENING                       # takes what passes
    ROLE_AWAY                            # is to take HTTP

cdef enum State:
    STATE_ADMITTED                       # has not reported yet
    STATE_LIVE
    STATE_SILENT                         # no report for SILENCE: dead until it says something
    STATE_LISTENING
    STATE_HTTP
    STATE_DONE
    STATE_LEFT


# What one receiver lacks of a chunk of which it has some.
cdef struct Claim:
    Link of_receiver
    Link of_repair
    Repair *repair
    uint32_t missing                     # symbols
    bint large                           # more than half of them: for the walk
    uint64_t symbols[1]                  # set of them; bits_words(K) words


# A chunk that some receivers have in part. It exists while there are claims.
cdef struct Repair:
    Link link                            # of the session's ring `waiting` or `ready`, while there are small claims
    Link claims
    uint32_t chunk
    uint32_t small                       # claims
    uint32_t large
    bint ready


cdef struct Chunk:
    uint64_t whole_at                    # sequence of the last DATA of its last whole sending; 0 never, BUSY now
    uint64_t sent_at                     # of its last DATA of any kind; 0 never, BUSY while it is sent
    uint64_t time                        # ns, of that
    Repair *repair                       # NULL: nobody has a part of it
    uint32_t whole                       # receivers that want it whole
    uint8_t parities                     # numbers below this were used since it was sent whole
    uint8_t counted                      # its symbols are in `needed`
    bint unreadable                      # for good: what is wanted of it is not heard


cdef struct Receiver:
    Receiver *chain                      # of its bucket
    uint32_t number
    uint32_t address                     # as in a packet
    uint32_t place                       # in the session's list
    Role role
    uint8_t reason                       # for the order, if it is to be told one
    uint8_t order                        # to be told after each report until it obeys; 0: none
    uint16_t flags                       # of its last report
    bint heard                           # it has reported,
    bint deaf                            # and has heard nothing
    bint anew                            # was admitted again since: its reports may be numbered from the beginning
    bint silent
    uint8_t mute                         # times in a row that it did not answer when the group was asked
    uint64_t heard_at                    # ns
    uint64_t highest                     # sequence that it had seen at its last report
    uint64_t admitted                    # sequence when it was admitted
    uint64_t *wants                      # bits of chunks that it wants whole; NULL: none
    uint32_t whole                       # how many
    Link claims
    # its last report
    uint32_t report
    uint32_t parts                       # bits of those that came
    uint32_t counting                    # chunks wanted, in the parts so far
    uint32_t wanted                      # the same of the last whole report
    uint32_t received
    uint32_t expected
    uint32_t written
    uint32_t wrong
    uint32_t disk_rate
    uint32_t refused
    uint32_t refused_lately              # of the last period
    uint16_t disk_queue
    double loss                          # of the last period; below 0: nothing was expected


# Parity symbols, in the order of their numbers.
cdef struct Made:
    Made *after                          # in the list of those that were sent
    uint8_t symbols[1]


# Symbols that are being sent, of one chunk.
cdef struct Job:
    bint active
    bint whole
    uint32_t chunk
    uint32_t stored
    uint32_t symbols                     # K
    uint32_t numbers                     # of symbols, parities that might be sent included
    uint32_t next
    uint32_t parity                      # place in `made` of the next parity symbol
    Made *made                           # NULL: no parity symbols
    uint64_t set[JOB_WORDS]              # what is to be sent


cdef struct Session:
    CastSession wire
    Session *after                       # in the list of those that ended
    pxed_path group
    Share share
    pxed_pacer pacer                     # counts symbol bytes
    pxed_cast_source *source
    uint32_t chunks
    bint held                            # sends no DATA
    uint64_t closed_at                   # ns; 0: open
    uint16_t period                      # ms between reports
    Chunk *chunk
    uint64_t *wanted                     # bits of chunks for the walk: wanted whole, or large claims
    uint32_t wanted_count
    Receiver *buckets[RECEIVER_BUCKETS]
    Receiver **receivers
    uint32_t receiver_count
    uint32_t receiver_room
    size_t claims
    Link waiting                         # repairs that not everybody has spoken about
    Link ready
    uint32_t repairs
    Job walk
    Job repair
    Made *spent                          # that the last batch may hold
    uint8_t *frame                       # memory for one, to make parity of
    size_t frame_room
    int64_t balance                      # repair symbols beyond walk symbols
    uint32_t cursor
    uint64_t sequence                    # of the last DATA
    uint64_t floor                       # sequence that everybody who is waited for has spoken about
    bint floor_stale
    uint64_t promote_at                  # ns, next look at `waiting`
    # when it is to do something; UINT64_MAX: never
    uint64_t send_at
    uint64_t check_at
    uint64_t quiet_until                 # waits for reports; 0: does not
    uint64_t asked_at                    # sequence that the last MARK asked about
    uint32_t asks                        # so many times
    uint64_t hurry_at                    # not before then the group is asked while there is something to send
    uint8_t mark                         # to be sent: 0, or its kind
    uint64_t said_at                     # ns, last datagram to the group
    # figures
    double loss                          # mean over receivers, smoothed
    uint64_t passes
    uint64_t sent                        # symbols
    uint64_t repaired                    # of these, source symbols sent as repair
    uint64_t parity                      # of these, parity symbols
    uint64_t needed                      # symbols of chunks that were sent at least once
    uint64_t bytes                       # of symbols
    uint64_t marks
    uint64_t reports
    uint64_t stale_wants
    uint32_t unreadable                  # chunks
    uint32_t failed                      # the one to be told of, and 1; 0: none


cdef enum:
    BUSY = 0xffffffffffffffff            # Chunk.whole_at, sent_at: its datagrams are on their way


cdef Session *session_new(const CastSession *wire, pxed_cast_source *source) noexcept nogil
cdef void session_free(Session *s) noexcept nogil
cdef void session_set_rate(Session *s, uint64_t rate) noexcept nogil
# Nobody wants anything any more. What the last batch holds stays.
cdef void session_close(Session *s, uint64_t now) noexcept nogil
# The last batch has left: what it held of parity symbols goes.
cdef void session_clear_spent(Session *s) noexcept nogil
cdef uint32_t session_symbols(const Session *s, uint32_t chunk) noexcept nogil

cdef Receiver *receiver_find(Session *s, uint32_t number) noexcept nogil
# Admitted, or again; NULL: too many, or no memory.
cdef Receiver *receiver_admit(Session *s, uint32_t number, uint32_t address) noexcept nogil
cdef void receiver_direct(Session *s, Receiver *r, uint8_t order, uint8_t reason) noexcept nogil
cdef State receiver_state(const Receiver *r) noexcept nogil
# Whether its wants count.
cdef bint receiver_is_live(const Receiver *r) noexcept nogil
cdef void receiver_forget_wants(Session *s, Receiver *r) noexcept nogil
# Those that have been silent for too long are dead from now on.
cdef void session_check(Session *s, uint64_t now) noexcept nogil
cdef uint32_t session_live(const Session *s) noexcept nogil
# Sets `floor`. True when everybody who is waited for has spoken about all that was sent.
cdef bint session_all_heard(Session *s, uint64_t now) noexcept nogil
# An answer that has not come by now is not waited for.
cdef void session_give_up_waiting(Session *s) noexcept nogil
# Whether somebody who is waited for wants nothing whole: lacks parts of chunks, or is about to say so.
cdef bint session_has_finishers(Session *s) noexcept nogil
