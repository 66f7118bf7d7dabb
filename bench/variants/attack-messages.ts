/** Messages between the bench and the attackers. */
export interface AttackOrder {
  readonly action: 'attack' | 'leave'
}

export interface AttackReport {
  readonly action: 'attack' | 'leave'
  readonly idleConnections: number
  /** Since the start of the process. */
  readonly slowHeadersClosed: number
  readonly slowBodiesClosed: number
  readonly resets: number
}
