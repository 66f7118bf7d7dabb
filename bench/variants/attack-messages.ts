/** What the bench and the attackers say to each other. */
export interface AttackOrder {
  readonly action: 'attack' | 'leave'
}

export interface AttackReport {
  readonly action: 'attack' | 'leave'
  readonly idleConnections: number
  /** Since the start of the process. */
  readonly slowHeadersEnded: number
  readonly slowBodiesEnded: number
  readonly resets: number
}
