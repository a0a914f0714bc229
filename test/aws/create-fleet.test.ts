/** CreateFleet of type instant, as the front carries it out in place of moto. */
import type { CreateFleetCommandInput, CreateFleetCommandOutput } from '@aws-sdk/client-ec2'
import t from 'tap'
import { startAws } from '../support/aws/start-aws.ts'

const { front, ec2, allInstances: all, subnetOf, createTemplate } = await startAws(t)
t.beforeEach(async () => await front.reset())

const named = (name: string) => ({ name })

interface FleetInput {
  readonly overrides?: readonly object[]
  readonly total?: number
  readonly spot?: number
  readonly more?: Partial<CreateFleetCommandInput>
}

const createFleet = async ({ overrides = [], total = 1, spot = 0, more = {} }: FleetInput = {}) =>
  await ec2.createFleet({
    Type: 'instant',
    LaunchTemplateConfigs: [
      { LaunchTemplateSpecification: { LaunchTemplateName: 'worker', Version: '1' }, Overrides: [...overrides] },
    ],
    TargetCapacitySpecification: {
      TotalTargetCapacity: total,
      SpotTargetCapacity: spot,
      DefaultTargetCapacityType: 'on-demand',
    },
    SpotOptions: { AllocationStrategy: 'price-capacity-optimized' },
    ...more,
  })
const launched = ({ Instances = [] }: CreateFleetCommandOutput) =>
  Instances.map(({ Lifecycle, InstanceType, InstanceIds = [] }) => `${InstanceIds.length} ${Lifecycle} ${InstanceType}`)
const failed = ({ Errors = [] }: CreateFleetCommandOutput) =>
  Errors.map(({ ErrorCode, Lifecycle, LaunchTemplateAndOverrides }) => {
    const { InstanceType } = LaunchTemplateAndOverrides?.Overrides ?? {}
    return `${ErrorCode} ${Lifecycle} ${InstanceType}`
  })

t.test('an instant fleet launches from pool to pool, and says which had no room', async t => {
  const group = await createTemplate()
  const SubnetId = await subnetOf('us-east-1b')
  const types = ['m5.large', 'c6i.xlarge', 'c5.large'].map(InstanceType => ({ InstanceType }))
  const tags = [{ ResourceType: 'instance' as const, Tags: [{ Key: 'a', Value: 'fleet' }] }]
  const overrides = [...types, { InstanceType: 'c7g.large', SubnetId }]
  front.capacity.set({ type: 'c7g.large', zone: 'us-east-1b', market: 'spot' }, 2)
  front.capacity.set({ type: 'c5.large', market: 'spot' }, 0)
  const more = { ClientToken: 'fleet', TagSpecifications: tags }
  const reply = await createFleet({ overrides, total: 6, spot: 5, more })
  t.same(launched(reply), ['1 on-demand c7g.large', '2 spot c7g.large', '3 spot m5.large'], 'the cheapest first')
  t.same(failed(reply), ['InsufficientInstanceCapacity spot c7g.large', 'InsufficientInstanceCapacity spot c5.large'])
  t.same(launched(await createFleet({ overrides, total: 6, spot: 5, more })), launched(reply), 'the token counts')
  await t.rejects(createFleet({ overrides, total: 7, spot: 5, more }), named('IdempotentParameterMismatch'))
  const instances = await all()
  t.equal(instances.length, 6)
  for (const {
    InstanceType,
    SecurityGroups,
    IamInstanceProfile,
    InstanceLifecycle,
    Placement,
    Tags = [],
  } of instances) {
    t.match({ SecurityGroups, IamInstanceProfile }, { SecurityGroups: [{ GroupId: group }], IamInstanceProfile: {} })
    t.match(Object.fromEntries(Tags.map(({ Key, Value }) => [Key, Value])), {
      a: 'fleet',
      'aws:ec2:fleet-id': /^fleet-/,
    })
    t.equal(Placement?.AvailabilityZone, InstanceType === 'c7g.large' ? 'us-east-1b' : 'us-east-1a')
    if (InstanceType === 'm5.large') t.equal(InstanceLifecycle, 'spot')
  }

  front.capacity.set({}, 0)
  const nothing = await createFleet({ overrides: types, total: 2 })
  t.same([nothing.Instances, nothing.Errors?.length], [[], 3], 'no room at all is a reply, too')
})

t.test('an instant fleet keeps to its options', async t => {
  await createTemplate()
  const overrides = ['c5.large', 'm5.large', 'c6i.xlarge'].map(InstanceType => ({ InstanceType }))
  const onDemand = (OnDemandOptions: CreateFleetCommandInput['OnDemandOptions']) => ({ more: { OnDemandOptions } })

  front.capacity.set({ type: 'c5.large' }, 2)
  front.capacity.set({ type: 'm5.large' }, 3)
  front.capacity.set({ type: 'c6i.xlarge' }, 1)
  const least = { ...onDemand({ SingleInstanceType: true, MinTargetCapacity: 3 }), overrides, total: 4 }
  t.same(launched(await createFleet(least)), ['3 on-demand m5.large'], 'the cheapest type that reaches the minimum')
  t.same(launched(await createFleet(least)), [], 'none does: nothing is launched')
  t.equal((await all()).length, 3)
  t.same(launched(await createFleet({ overrides, total: 2 })), ['2 on-demand c5.large'], 'nor taken from the pools')
  await t.rejects(
    createFleet({ overrides, ...onDemand({ MinTargetCapacity: 1 }) }),
    named('InvalidParameterCombination'),
  )

  front.capacity.clear()
  const ranked = overrides.map((override, index) => ({ ...override, Priority: 3 - index, WeightedCapacity: index + 1 }))
  const prioritized = { overrides: ranked, total: 7, ...onDemand({ AllocationStrategy: 'prioritized' }) }
  t.same(launched(await createFleet(prioritized)), ['3 on-demand c6i.xlarge'], 'by priority, seven units in threes')

  front.prices.set({ type: 'm5.large', market: 'spot' }, 0.001)
  const cheap = { overrides: overrides.map(override => ({ ...override, MaxPrice: '0.01' })), total: 1, spot: 1 }
  const bought = await createFleet(cheap)
  t.same(launched(bought), ['1 spot m5.large'])
  t.same(failed(bought), ['SpotMaxPriceTooLow spot c5.large', 'SpotMaxPriceTooLow spot c6i.xlarge'])

  const missing = { LaunchTemplateSpecification: { LaunchTemplateName: 'nobody', Version: '1' } }
  t.same(failed(await createFleet({ more: { LaunchTemplateConfigs: [missing] } })), [
    'InvalidLaunchTemplateName.NotFoundException on-demand undefined',
  ])
  const unversioned = { LaunchTemplateSpecification: { LaunchTemplateName: 'worker' } }
  await t.rejects(createFleet({ more: { LaunchTemplateConfigs: [unversioned] } }), named('MissingParameter'))
  const odd = { SpotOptions: { AllocationStrategy: 'diversified' as const } }
  await t.rejects(createFleet({ overrides, total: 1, spot: 1, more: odd }), named('NotCovered'))
  await t.rejects(createFleet({ overrides, more: { Type: 'maintain' } }), named('NotCovered'))
  await t.rejects(createFleet({ overrides, more: { ValidUntil: new Date() } }), named('NotCovered'))
  await t.rejects(createFleet({ overrides, total: 1, spot: 2 }), named('InvalidParameterValue'))
})

t.test('a fleet moves its subnet into the network interface of its template', async t => {
  await createTemplate({ SecurityGroupIds: undefined, NetworkInterfaces: [{ DeviceIndex: 0 }] })
  const SubnetId = await subnetOf('us-east-1c')
  await createFleet({ overrides: [{ SubnetId }] })
  t.match(await all(), [{ SubnetId, Placement: { AvailabilityZone: 'us-east-1c' } }])
  const LaunchTemplate = { LaunchTemplateName: 'worker' }
  const beside = ec2.runInstances({ LaunchTemplate, SubnetId, MinCount: 1, MaxCount: 1 })
  await t.rejects(beside, named('InvalidParameterCombination'), 'RunInstances does not')
})
