// A pool of threads that live as long as the process.
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "dispatch.h"

#define MAX_THREADS 256

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t is_busy = PTHREAD_MUTEX_INITIALIZER;   // one job at a time
static pthread_cond_t has_work = PTHREAD_COND_INITIALIZER, is_done = PTHREAD_COND_INITIALIZER;
static u32 num_started, num_left;
static u64 job_number;
static void (*job)(void *, u32);
static void *job_argument;

u32 pool_threads(void) {
  static u32 cached;
  if (cached) return cached;
  const char *text = getenv("AMDNFS_EMULATE_THREADS");
  cpu_set_t usable;
  u32 count = text ? (u32)strtoul(text, NULL, 10) : 0;
  if (!count) count = sched_getaffinity(0, sizeof usable, &usable) == 0 ? (u32)CPU_COUNT(&usable) : 1;
  cached = count < 1 ? 1 : count > MAX_THREADS ? MAX_THREADS : count;
  return cached;
}

static void *worker(void *argument) {
  u32 thread = (u32)(size_t)argument;
  u64 seen = 0;
  pthread_mutex_lock(&lock);
  for (;;) {
    while (job_number == seen) pthread_cond_wait(&has_work, &lock);
    seen = job_number;
    void (*work)(void *, u32) = job;
    void *with = job_argument;
    pthread_mutex_unlock(&lock);
    work(with, thread);
    pthread_mutex_lock(&lock);
    if (--num_left == 0) pthread_cond_signal(&is_done);
  }
  return NULL;
}

// A child of fork() has none of the threads.
static void forget_threads(void) {
  num_started = 0;
  num_left = 0;
  pthread_mutex_init(&lock, NULL);
  pthread_mutex_init(&is_busy, NULL);
  pthread_cond_init(&has_work, NULL);
  pthread_cond_init(&is_done, NULL);
}

static void start_threads(u32 wanted) {
  static bool is_registered;
  if (!is_registered) pthread_atfork(NULL, NULL, forget_threads);
  is_registered = true;
  while (num_started < wanted) {
    pthread_t made;
    job_number = 0;
    if (pthread_create(&made, NULL, worker, (void *)(size_t)(num_started + 1))) return;
    pthread_detach(made);
    num_started++;
  }
}

void pool_run(void (*work)(void *argument, u32 thread), void *argument) {
  pthread_mutex_lock(&is_busy);
  pthread_mutex_lock(&lock);
  if (num_started == 0) start_threads(pool_threads() - 1);
  job = work;
  job_argument = argument;
  num_left = num_started;
  job_number++;
  pthread_cond_broadcast(&has_work);
  pthread_mutex_unlock(&lock);
  work(argument, 0);
  pthread_mutex_lock(&lock);
  while (num_left) pthread_cond_wait(&is_done, &lock);
  pthread_mutex_unlock(&lock);
  pthread_mutex_unlock(&is_busy);
}
