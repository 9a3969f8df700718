# shellcheck shell=bash
# Processes and ports, for the commands in this folder that start some. A process is known by its pid and when it began, kept
# as one line in a file: a pid alone may be another's by now.

# When a process began, in ticks since boot. Nothing if it does not run.
began() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
  stat=${stat##*) }
  [[ $stat == Z* ]] || awk '{ print $20 }' <<<"$stat"
}

# Starts a command in the background, in a session of its own (Ctrl-C in the terminal is for whoever starts it), and keeps
# its line in a file. The command must become the process by `exec`: then the pid is its own.
start_process() {
  local file=$1
  shift
  setsid "$@" </dev/null &
  echo "$! $(began $!)" >"$file"
  disown $!
}

# Whether the process of a file runs.
process_runs() {
  local pid ticks
  [[ -s $1 ]] || return 1
  read -r pid ticks <"$1"
  [[ -n $ticks && $(began "$pid") == "$ticks" ]]
}

process_pid() { cut -d' ' -f1 "$1"; }

# stop_process FILE SIGNAL SECONDS: sends the signal and waits; after so many seconds SIGKILL. Not 0 if it took that.
stop_process() {
  local file=$1 signal=$2 seconds=$3 pid tries
  process_runs "$file" || return 0
  pid=$(process_pid "$file")
  kill -s "$signal" "$pid" 2>/dev/null || true
  kill -s CONT "$pid" 2>/dev/null || true
  for ((tries = seconds * 50; tries > 0; tries--)); do
    process_runs "$file" || return 0
    sleep 0.02
  done
  kill -s KILL "$pid" 2>/dev/null || true
  for ((tries = 250; tries > 0; tries--)); do
    process_runs "$file" || return 1
    sleep 0.02
  done
  return 1
}

# Whose each port is that was drawn: a link of the port's name to what has it.
drawn_ports=${TMPDIR:-/tmp}/worldline-drawn-ports-$UID

# A port that nobody listens on, TCP or UDP, below those that the system gives to connections. It is given to nobody else as long
# as there is what has it, a folder or `/proc/PID`: a service that is dead for a while finds its port as it left it.
free_port() {
  local owner=$1 port
  mkdir -p "$drawn_ports"
  while :; do
    port=$((20000 + (RANDOM << 15 | RANDOM) % 12000))
    ! grep -qsi "^ *[0-9]*: [0-9A-F]*:$(printf %04X "$port") " /proc/net/tcp /proc/net/tcp6 /proc/net/udp /proc/net/udp6 || continue
    if ln -sT "$owner" "$drawn_ports/$port" 2>/dev/null; then echo "$port"; return; fi
    # What leads nowhere is nobody's any more: whoever draws it next has it.
    [[ -e $drawn_ports/$port ]] || rm -f "$drawn_ports/$port"
  done
}

# What this had is anybody's again.
free_ports_of() { find "$drawn_ports" -maxdepth 1 -lname "$1" -delete 2>/dev/null || true; }
