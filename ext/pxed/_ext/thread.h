/* A native thread that nobody joins and that Python does not know. */
#ifndef PXED_THREAD_H
#define PXED_THREAD_H

#include <pthread.h>
#include <signal.h>
#include <stddef.h>

/* 0, or an error number. Signals are for the process' other threads. */
static inline int pxed_thread_start(void *(*run)(void *), void *argument) {
    sigset_t all, before;
    pthread_attr_t attributes;
    pthread_t thread;
    int error;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 256 << 10);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&thread, &attributes, run, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return error;
}

#endif
