/** How boots are shown at /fleet: the times of one instance, and the stages between them, also as medians of a pool. */
import { type TNumber, type TOptional, Type } from 'typebox'
import { type BootTimeline, type StageTimes, stageTimes } from '../../fleet/measure/boot-stages.ts'

const stageHelp = {
  readyMs: 'From the launch until its worker was there',
  bootedMs: 'From the launch until the kernel was up',
  userDataMs: 'Until the user data began',
  installedMs: 'Until the code was in its place',
  agentMs: 'Until the process of the worker began',
  registeredMs: 'Until a node heard of the worker',
  firstClaimMs: 'Until it had its first job, with the time in which there was none',
} as const satisfies Record<keyof StageTimes, string>

const stages = Object.fromEntries(
  Object.entries(stageHelp).map(([name, description]) => [name, Type.Optional(Type.Number({ description }))]),
) as { [Name in keyof StageTimes]-?: TOptional<TNumber> }

const Time = Type.String({ description: 'ISO 8601' })

export const Boot = Type.Object(
  {
    launchedAt: Time,
    bootedAt: Type.Optional(Time),
    userDataAt: Type.Optional(Time),
    installedAt: Type.Optional(Time),
    agentAt: Type.Optional(Time),
    registeredAt: Time,
    firstClaimAt: Type.Optional(Time),
    stages: Type.Object(stages, {
      description: 'Each from the end of the known stage before it; unreported stages are absent',
    }),
  },
  { description: 'How it came up; absent until its worker is there' },
)

export const BootMedians = Type.Object(
  { sampleCount: Type.Integer({ description: 'Of how many instances, at most the newest 15' }), ...stages },
  { description: 'Medians of the stages of a boot; absent until an instance has come up' },
)

export function renderBoot(timeline: BootTimeline) {
  const times = Object.entries(timeline).map(([name, at]) => [name, new Date(at).toISOString()] as const)
  return { ...(Object.fromEntries(times) as { [Name in keyof BootTimeline]: string }), stages: stageTimes(timeline) }
}
