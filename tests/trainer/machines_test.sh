# What clusters' machines lack: file descriptors, locks, room for checkpoints, and an MPI that knows the launcher.
# Labels: fast
source "$SOURCE/tests/tiny_run.sh"
tiny_data
says() { grep -qE -- "$1" output.txt || { cat output.txt >&2; fail "the output lacks: $1"; }; }
quick=(--set train.steps=3 --set eval.every=0 --set checkpoint.every=0 --set telemetry.every=0)
train() { "$NIBBLE" train tiny.yaml "${quick[@]}" "$@"; }

# The soft limit on open files is raised to the hard limit. A run reads more shards than that allows, with the same
# losses.
mkdir many
for i in {1..100}; do cp data/train-00000.bin many/s-$i.bin; done
expect 0 bash -c 'ulimit -Sn 20; "$@"' _ "$NIBBLE" train tiny.yaml "${quick[@]}" --set 'data.train=many/*.bin' --set run.dir=soft
expect 0 bash -c 'ulimit -n 40; "$@"' _ "$NIBBLE" train tiny.yaml "${quick[@]}" --set 'data.train=many/*.bin' --set run.dir=hard
same hard soft

# One task of several whose MPI sees one rank.
expect 78 env SLURM_STEP_NUM_TASKS=2 "$NIBBLE" train tiny.yaml
says 'this process is one of 2 tasks'
expect 78 env PMI_RANK=1 PMI_SIZE=4 "$NIBBLE" train tiny.yaml
says 'this process is one of 4 tasks'
[ ! -e run ] || fail "a refused task made a run directory"
expect 0 env SLURM_NTASKS=4 SLURM_PROCID=0 SLURM_JOB_ID=1 "$NIBBLE" train tiny.yaml "${quick[@]}" --set run.dir=batch

# The system calls that such machines answer differently, in a library that is loaded before the system's.
cat >calls.c <<'C'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/statvfs.h>
int flock(int file, int operation) {
  const char* error = getenv("FLOCK_ERROR");
  if (error == 0) return ((int (*)(int, int))dlsym(RTLD_NEXT, "flock"))(file, operation);
  errno = atoi(error);
  return -1;
}
int statvfs(const char* path, struct statvfs* status) {
  const int result = ((int (*)(const char*, struct statvfs*))dlsym(RTLD_NEXT, "statvfs"))(path, status);
  const char* blocks = getenv("FREE_BLOCKS");
  if (blocks != 0) {
    status->f_frsize = 1 << 20;
    status->f_bavail = atoi(blocks);
    if (atoi(blocks) == 0) status->f_blocks = 0;
  }
  return result;
}
C
if ! cc -shared -fPIC -o calls.so calls.c -ldl 2>cc.txt; then
  echo "machines: passed, without the checks that need a C compiler"
  exit 0
fi
# The sanitizers' own library has to be the first.
answering() { env LD_PRELOAD="$WORK/calls.so" ASAN_OPTIONS=verify_asan_link_order=0 "$@"; }

# File systems without locks: ENOSYS, EOPNOTSUPP, ENOLCK and 524.
for error in 38 95 37 524; do
  expect 0 answering FLOCK_ERROR=$error "$NIBBLE" train tiny.yaml "${quick[@]}" --set run.dir=unlocked-$error
  says 'warning: the file system of .*/unlocked-'$error' has no locks'
  [ ! -e unlocked-$error/lock.held ] || fail "the file that stands for the lock is left"
done
expect 0 answering FLOCK_ERROR=38 "$NIBBLE" tokenize text.txt --documents line --vocab-size 512 --output unlocked
says 'warning: the file system of .*unlocked has no locks'
[ -z "$(find unlocked -name '.*' -mindepth 1)" ] || fail "tokenize left $(find unlocked -name '.*')"
expect 74 answering FLOCK_ERROR=5 "$NIBBLE" train tiny.yaml "${quick[@]}" --set run.dir=broken

# Room for all checkpoints that are on the disk at once: here 4, or 2, of about 3 MiB (an upper bound).
checkpoints=(--set train.steps=12 --set checkpoint.every=1)
expect 74 answering FREE_BLOCKS=7 "$NIBBLE" train tiny.yaml "${checkpoints[@]}" --set run.dir=small
says '4 checkpoints of [0-9.]+ MiB are on the disk at once \(checkpoint.keep_last 3,'
says 'but 7.0 MiB are free in .*/small/checkpoints'
[ -z "$(ls -A small/checkpoints)" ] || fail "a checkpoint was written all the same"
expect 0 answering FREE_BLOCKS=7 "$NIBBLE" train tiny.yaml "${quick[@]}" --set run.dir=small
expect 0 answering FREE_BLOCKS=0 "$NIBBLE" train tiny.yaml "${checkpoints[@]}" --set run.dir=unknown
expect 0 answering FREE_BLOCKS=20 "$NIBBLE" train tiny.yaml "${checkpoints[@]}" --set checkpoint.keep_every=1 --set run.dir=milestones
says 'warning: checkpoint.keep_every 1 keeps up to 12 more checkpoints'
echo "machines: passed"
