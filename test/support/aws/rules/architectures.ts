/**
 * An image runs on processors of its own kind only.
 * Why: moto launches an image for x86-64 on an Arm type, too.
 */
import type { Caller, Ec2Calls } from '../ec2-calls.ts'
import type { Params } from '../query.ts'
import { Refusal } from '../reply.ts'
import { find, itemsOf, textOf } from '../xml.ts'

/** @throws Refusal when image and type do not fit; images that moto does not know fit everything */
export async function checkArchitecture(request: Params, caller: Caller, ec2: Ec2Calls): Promise<void> {
  const { ImageId, InstanceType } = request
  if (ImageId === undefined || InstanceType === undefined) return
  const image = await ofImage(ImageId, caller, ec2)
  const types = await ofType(InstanceType, caller, ec2)
  if (image === undefined || types.length === 0 || types.includes(image)) return
  throw new Refusal(
    'InvalidParameterValue',
    `The architecture '${types.join(',')}' of the specified instance type does not match the architecture '${image}' of the specified AMI.`,
  )
}

async function ofImage(id: string, caller: Caller, ec2: Ec2Calls): Promise<string | undefined> {
  try {
    const reply = await ec2.asAdmin(caller, { Action: 'DescribeImages', 'ImageId.1': id })
    return textOf(itemsOf(reply, 'imagesSet')[0], 'architecture')
  } catch (error) {
    if (error instanceof Refusal) return undefined
    throw error
  }
}

async function ofType(type: string, caller: Caller, ec2: Ec2Calls): Promise<string[]> {
  try {
    const reply = await ec2.asAdmin(caller, { Action: 'DescribeInstanceTypes', 'InstanceType.1': type })
    const architectures = find(itemsOf(reply, 'instanceTypeSet')[0], 'processorInfo', 'supportedArchitectures')
    return (architectures?.children ?? []).flatMap(item => item.text ?? [])
  } catch (error) {
    if (error instanceof Refusal) return []
    throw error
  }
}
