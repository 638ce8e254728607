 (0:"command@J
state

PX	bcontextx