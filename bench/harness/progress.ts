/** Progress on standard error: a bar on a terminal, plain lines elsewhere. */
import { SingleBar } from 'cli-progress'

export interface Progress extends Disposable {
  /** Starts the next step. */
  step(note: string): void
}

export function createProgress(title: string, total: number): Progress {
  let steps = 0
  if (!process.stderr.isTTY) {
    return {
      step: (note) => process.stderr.write(`${title} ${++steps}/${total} ${note}\n`),
      [Symbol.dispose]: () => {},
    }
  }
  const bar = new SingleBar({
    format: `${title} {bar} {value}/{total} {note}`,
    stream: process.stderr,
    clearOnComplete: true,
    hideCursor: true,
  })
  bar.start(total, 0, { note: 'starting' })
  return {
    step: (note) => bar.update(++steps, { note }),
    [Symbol.dispose]: () => bar.stop(),
  }
}
