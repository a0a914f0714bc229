/** All moves, listed once. */
import type { Move } from '../move.ts'
import { collectMoves } from './collect.ts'
import { fleetMoves } from './fleet.ts'
import { hostileMoves } from './hostile.ts'
import { jobMoves } from './jobs.ts'
import { killMoves } from './kills.ts'
import { queueMoves } from './queues.ts'
import { roomMoves } from './room.ts'
import { submitMoves } from './submit.ts'

export const moves: readonly Move[] = [
  ...submitMoves,
  ...collectMoves,
  ...jobMoves,
  ...queueMoves,
  ...fleetMoves,
  ...hostileMoves,
  ...killMoves,
  ...roomMoves,
]
