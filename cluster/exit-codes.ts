/** Every exit code of the command. A process that a signal ends early exits with 128 + its number. */
export const EXIT = {
  ok: 0,
  /** The server, the model or the command failed. */
  failed: 1,
  /** Wrong command line or configuration. */
  usage: 2,
  /** `onecopy run`: no server holds the model. */
  notResident: 3,
  /** `onecopy run`: the input cannot be read, or the output cannot be written. */
  file: 4,
  /** A bug ended a worker (EX_SOFTWARE of sysexits.h). */
  bug: 70,
  /** `onecopy run`: the server is busy or restarting (EX_TEMPFAIL of sysexits.h). */
  busy: 75,
} as const
